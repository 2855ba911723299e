"""GA3C: actor-critic whose actors hold no parameters and whose one model is served in batches.

This module stays free of torch: actor processes import the package too.
"""

__version__ = "0.1.0"
