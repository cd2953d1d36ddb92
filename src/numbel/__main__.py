"""The console script `numbel`, and `python -m numbel`."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line, or say in one line what it lacks."""
    try:
        from .cli import app
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("typer", "rich"):
            raise
        print('numbel: the command line needs typer and rich: pip install "numbel[cli]"', file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    app(prog_name="numbel")


if __name__ == "__main__":
    main()
