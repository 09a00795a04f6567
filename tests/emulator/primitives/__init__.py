"""What emulators of training primitives share: sessions, models that really train, one worker, faults on the wire."""
