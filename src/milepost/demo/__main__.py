"""`python -m milepost.demo`."""

import sys

from milepost.demo.story import main

sys.exit(main())
