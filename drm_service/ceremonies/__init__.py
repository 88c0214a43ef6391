"""Key ceremonies: asked for, opened in the log, decided by agents, carried out by a quorum's shares.

``steps`` is a ceremony's life in order. ``quorum`` says who decides, ``room`` how much one agent may ask, ``journal``
makes each step durable, ``records`` and ``views`` tell it. ``work`` hands an approved one to the disposable ``worker``.
``recovery`` and ``key_ceremonies`` are what it may be about; ``trust_changes`` is what others believe of it.
"""
