"""The base class of our TFDS builders."""

import json
from collections.abc import Mapping

import tensorflow_datasets as tfds


class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A builder that needs no TensorFlow, and whose folder says what it was made of."""

    made_of: Mapping  # JSON values that decide the examples

    def __init__(self, *, file_format="array_record", **options):
        """ValueError where a dataset of this name is there already and was made of other things."""
        self.left_out: dict[str, str] = {}  # id → why that example could not be made
        super().__init__(file_format=file_format, **options)
        there, wanted = dict(self.info.metadata), json.loads(json.dumps(self.made_of))
        other = sorted(name for name in wanted if there.get(name) != wanted[name])
        if other:
            raise ValueError(
                f"{self.data_dir} was made with another {' and '.join(other)}; remove that folder "
                "or give the dataset another name."
            )

    def _described(self, features: Mapping, **about) -> tfds.core.DatasetInfo:
        """What TFDS is to know of this dataset."""
        return tfds.core.DatasetInfo(
            builder=self,
            description=type(self).__doc__,
            metadata=tfds.core.MetadataDict(self.made_of),
            features=tfds.features.FeaturesDict(dict(features)),
            **about,
        )
