"""Prepare records on several machines: the shards of prepare.py as an Apache Beam pipeline.

Needs `pip install -r requirements-beam.txt`. The table, the videos and the folder for the shards
must lie under the same paths on every machine: a network file system or a mounted bucket. Each
shard is written whole by one machine, as `mbt-lite prepare` alone would write it, so the bytes are
the same whatever the runner, and what is finished is not done again. What is added to
`mbt-lite prepare TABLE --videos DIR --out DIR`:

    --runner DirectRunner
    --runner DirectRunner --beam-options direct_num_workers=4 direct_running_mode=multi_processing
    --runner FlinkRunner --beam-options flink_master=HOST:8081 environment_type=LOOPBACK
    --runner SparkRunner --beam-options spark_master_url=spark://HOST:7077 environment_type=LOOPBACK
    --runner DataflowRunner --beam-options project=NAME region=REGION temp_location=gs://BUCKET/tmp
        sdk_container_image=IMAGE

The first two are tested; the others are as Beam documents its runners and were not run here.
LOOPBACK runs the work on the machine that gives the command; a cluster wants
environment_type=DOCKER and environment_config=IMAGE, an image in which this package and
requirements-beam.txt are installed, as Dataflow does.
"""

from collections.abc import Sequence
from pathlib import Path

from mbt_lite.data import prepare as local
from mbt_lite.data.extract import Settings
from mbt_lite.data.manifest import Shard, finish, unfinished
from mbt_lite.data.prepare import PATIENCE
from mbt_lite.media import isolate


def prepare(
    shards: Sequence[Shard],
    settings: Settings,
    folder: Path,
    runner: str = "DirectRunner",
    options: Sequence[str] = (),
    patience: float = PATIENCE,
) -> dict:
    """Write the shards that are not finished yet, as `prepare.prepare` does; what it returns.

    ValueError where Apache Beam is missing or does not know the runner.
    """
    beam = _beam()
    from apache_beam.options.pipeline_options import PipelineOptions

    folder = folder.absolute()
    with local.writing(folder):
        missing = unfinished(shards, settings, folder)
        if missing:
            flags = PipelineOptions([f"--runner={runner}", *options])
            with beam.Pipeline(options=flags) as pipeline:
                _ = pipeline | beam.Create(missing) | write_shards(settings, folder, patience)
        return finish(folder, settings)


def write_shards(settings: Settings, folder: Path, patience: float = PATIENCE):
    """A transform from `Shard`s to the names of the files they were written to.

    A decoder that crashes or hangs costs its clip, not the bundle: clips are decoded in a process
    beside Beam's own.
    """
    beam = _beam()

    def write(shard: Shard) -> str:
        write_shard(shard, settings, folder, patience)
        return shard.name

    return "WriteShards" >> (beam.Reshuffle() | beam.Map(write))


def write_shard(shard: Shard, settings: Settings, folder: Path, patience: float) -> None:
    """Write one shard and its manifest, as the local run does."""
    task = local.write(shard, settings, folder)
    isolate.run(iter([task]), local.work, settings, 1, patience)


def _beam():
    try:
        import apache_beam
    except ImportError:
        raise ValueError(
            "--runner needs Apache Beam, which is not installed: pip install -r "
            "requirements-beam.txt, in an environment of its own."
        ) from None
    return apache_beam
