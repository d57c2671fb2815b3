"""Trying a policy on a fleet you describe, in virtual time; the command is ``twostep simulate``."""
