"""Prepare records on several machines: the shards of prepare.py as an Apache Beam pipeline.

Needs `pip install -r requirements-beam.txt`. The table, the videos and the folder for the shards
must lie under the same paths on every machine: a network file system or a mounted bucket. Each
shard is written by one machine, as `mbt-lite prepare` alone would write it, so the bytes are the
same with every runner, and finished shards are not written again. Add to
`mbt-lite prepare TABLE --videos DIR --out DIR`:

    --runner DirectRunner
    --runner DirectRunner --beam-options direct_num_workers=4 direct_running_mode=multi_processing
    --runner FlinkRunner --beam-options flink_master=HOST:8081 environment_type=LOOPBACK
    --runner SparkRunner --beam-options spark_master_url=spark://HOST:7077 environment_type=LOOPBACK
    --runner DataflowRunner --beam-options project=NAME region=REGION temp_location=gs://BUCKET/tmp
        sdk_container_image=IMAGE

The first two are tested; the others are as Beam documents its runners and were not run here.
LOOPBACK runs the work on the machine that starts the command; a cluster needs
environment_type=DOCKER and environment_config=IMAGE, an image in which this package and
requirements-beam.txt are installed, as Dataflow does.
"""

from collections.abc import Sequence
from pathlib import Path

from mbt_lite.data import prepare as local
from mbt_lite.data.extract import Settings
from mbt_lite.data.manifest import Shard, finish, unfinished
from mbt_lite.data.prepare import TIMEOUT
from mbt_lite.media import isolate


def prepare(
    shards: Sequence[Shard],
    settings: Settings,
    folder: Path,
    runner: str = "DirectRunner",
    options: Sequence[str] = (),
    timeout: float = TIMEOUT,
) -> dict:
    """Write the shards that are not finished yet, and return as `prepare.prepare` does.

    A decoder that crashes or hangs costs its clip, not the bundle: clips are decoded in a process
    beside Beam's own. ValueError if Apache Beam is missing or does not know the runner.
    """
    try:
        import apache_beam as beam
        from apache_beam.options.pipeline_options import PipelineOptions
    except ImportError:
        raise ValueError(
            "--runner needs Apache Beam, which is not installed: pip install -r "
            "requirements-beam.txt, in an environment of its own."
        ) from None
    folder = folder.absolute()

    def write(shard: Shard) -> str:
        task = local.write(shard, settings, folder)
        isolate.run(iter([task]), local.work, settings, 1, timeout)
        return shard.name

    with local.writing(folder):
        if missing := unfinished(shards, settings, folder):
            with beam.Pipeline(
                options=PipelineOptions([f"--runner={runner}", *options])
            ) as pipeline:
                planned = pipeline | beam.Create(missing) | beam.Reshuffle()
                _ = planned | "WriteShards" >> beam.Map(write)
        return finish(folder, settings)
