"""What recovery agents do, and what they verify first.

``client`` has the calls. ``review``, ``decisions`` and ``approvable`` verify a ceremony. ``archive_pins`` and
``archive_changes`` compare the archive's agents and storage keys with the pinned ones. ``recipients`` and
``delivery`` open recovered keys; ``agent_keys`` has the agent's own keys.
"""
