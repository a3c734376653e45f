"""mbt_lite: the Multimodal Bottleneck Transformer in JAX, small enough to read.

    import mbt_lite as mbt

    clf = mbt.load()
    clf.predict("clip.mp4").top(5)

The names below are imported when they are first used, so that `import mbt_lite` itself is fast.
"""

from etils import epy

__version__ = "0.1.0"

with epy.lazy_api_imports(globals()):
    from mbt_lite import configs as configs
    from mbt_lite import explain as explain
    from mbt_lite.checkpoints import from_vit as from_vit
    from mbt_lite.config import BASE as BASE
    from mbt_lite.config import WORLD as WORLD
    from mbt_lite.config import ClipConfig as ClipConfig
    from mbt_lite.config import FrontEnd as FrontEnd
    from mbt_lite.config import MBTConfig as MBTConfig
    from mbt_lite.data import world as world
    from mbt_lite.evaluation import evaluate as evaluate
    from mbt_lite.features import read_clip as read_clip
    from mbt_lite.inference import Classifier as Classifier
    from mbt_lite.inference import Prediction as Prediction
    from mbt_lite.inference import load as load
    from mbt_lite.model import MBT as MBT
    from mbt_lite.model import Clip as Clip
    from mbt_lite.model import Output as Output
    from mbt_lite.train import fit as fit
