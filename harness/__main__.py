"""``python -m harness``."""

import sys

if __name__ == "__main__":
    try:
        from harness.cli.main import main
    except KeyboardInterrupt:  # Ctrl-C while the command line loads: nothing has begun
        sys.exit(130)
    main()
