"""Pure machines. The contract:

    class Machine:
        def handle(self, message) -> list[Effect]     the only way in; never blocks
        def validate(self) -> None                    the invariants, as code

Law 1: the same messages in the same order give the same effects, byte for byte: no clock, randomness, threads, environment
or hash() in here. Law 2: an effect that completes or fails comes back as a message. Messages are past tense (messages.py),
effects imperative (effects.py).
"""
