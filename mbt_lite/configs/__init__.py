"""One file per experiment, with a function `experiment()` and its cost and scores."""

from mbt_lite.configs import audioset_500k as audioset_500k
from mbt_lite.configs import audioset_mini as audioset_mini
from mbt_lite.configs import av_digits as av_digits
from mbt_lite.configs import epic_kitchens as epic_kitchens
from mbt_lite.configs import everyday as everyday
from mbt_lite.configs import folder as folder
from mbt_lite.configs import fusion_grid as fusion_grid
from mbt_lite.configs import kinetics_sounds as kinetics_sounds
from mbt_lite.configs import vggsound as vggsound
from mbt_lite.configs import world as world
