"""The commands: one small module each, that parses, calls the library once and prints.

Each command has a module of its name: ``synth``, ``label``, ``check``, ``convert``, ``patch``,
``train``, ``predict``, ``evaluate``, ``compare``, ``suspects``, ``suggest``, ``export``, ``info``
and ``runs``. ``app`` is the group that finds them, and ``boundary`` turns each error into a line
and an exit code. ``options`` declares the options that come from settings, or that several commands
share; an option of one command stands in its module. ``config_file`` reads ``--config``. ``tables``
and ``console`` print.
"""
