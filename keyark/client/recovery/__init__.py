"""What recovery agents do, and what they verify before they do it.

``client`` has the calls; ``review``, ``decisions`` and ``approvable`` show what a ceremony is, in signed words;
``archive_pins`` and ``archive_changes`` hold the archive to its agents and storage keys; ``recipients`` and
``delivery`` open what comes back, ``agent_keys`` are the agent's own.
"""
