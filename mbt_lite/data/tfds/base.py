"""The base class of our TFDS builders."""

import json
from collections.abc import Mapping

import tensorflow_datasets as tfds


class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A builder that needs no TensorFlow; the metadata of its folder is its fingerprint."""

    fingerprint: Mapping  # JSON values that determine the examples

    def __init__(self, *, file_format="array_record", **options):
        """ValueError if a dataset of this name exists and has another fingerprint."""
        self.left_out: dict[str, str] = {}  # id → why that example is missing
        super().__init__(file_format=file_format, **options)
        old, new = dict(self.info.metadata), json.loads(json.dumps(self.fingerprint))
        if changed := sorted(name for name in new if old.get(name) != new[name]):
            raise ValueError(
                f"{self.data_dir} was made with another {' and '.join(changed)}; remove that "
                "folder or give the dataset another name."
            )

    def _described(self, features: Mapping, **about) -> tfds.core.DatasetInfo:
        """The description of this dataset for TFDS."""
        return tfds.core.DatasetInfo(
            builder=self,
            description=type(self).__doc__,
            metadata=tfds.core.MetadataDict(self.fingerprint),
            features=tfds.features.FeaturesDict(dict(features)),
            **about,
        )
