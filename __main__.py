"""``python -m beyonddrive VERB ...`` is ``beyonddrive VERB ...`` with this interpreter."""

import sys

from beyonddrive.cli import main

if __name__ == "__main__":
    sys.exit(main())
