"""``python without_shutdown.py SCRIPT``: run the script as the main module, and skip the interpreter's shutdown.

FSDP2's threads of gloo outlive `destroy_process_group` (`findings/fsdp2_outlives_its_process_group.sh`). One that wants
the interpreter's lock during the shutdown aborts the process, now and then, whatever the script was.
"""

import os
import runpy
import sys

if __name__ == "__main__":
    runpy.run_path(sys.argv[1], run_name="__main__")
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
