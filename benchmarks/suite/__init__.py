import os
import tempfile

# asv reuses one environment for many commits. A cache of machine code that outlives a commit would hide its
# changes, so each commit gets its own. It must be set before Numba is imported; without asv nothing is changed.
if "ASV_COMMIT" in os.environ:
    os.environ["NUMBA_CACHE_DIR"] = os.path.join(tempfile.gettempdir(), "numbel-asv", os.environ["ASV_COMMIT"])
