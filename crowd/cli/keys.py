"""`crowd keys`: this device's key, and the line by which the other members know it."""

from pathlib import Path

import cyclopts

from crowd.protocol.identity import generate_key, public_line, read_key, write_key

app = cyclopts.App(name="keys", help="Make and show device keys.")


@app.command
def new(name: str, /) -> None:
    """Write NAME.key here, readable by you alone, and print the line that goes into every device's members file.

    Parameters
    ----------
    name
        The device's name.
    """
    key = generate_key()
    line = public_line(name, key)
    write_key(Path(f"{name}.key"), key)
    print(line)


@app.command
def show(file: Path, /) -> None:
    """Print the line that goes into every device's members file.

    Parameters
    ----------
    file
        The device's key, NAME.key.
    """
    print(public_line(file.stem, read_key(file)))
