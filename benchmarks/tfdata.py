"""A plain tf.data pipeline, run as a separate program for comparison by `mbt-lite bench data`.

Like Scenic's loader (DMVR) it parses a SequenceExample, samples frames and spectrogram by ratio,
decodes the frames one by one with `tf.map_fn`, and makes batches; frames are padded as ours are. It
runs in any Python with TensorFlow, which the package itself never imports:

    python tfdata.py CLIPS BATCH FRAMES STRIDE ROWS HEIGHT WIDTH CLASSES SHARD...

prints the seconds of processor time for this number of clips.
"""

import importlib
import sys
import time

WARM = 4  # clips before the clock starts


def batches(tf, paths, batch, frames, stride, rows, height, width, classes):
    """Endless batches of a training pipeline in one thread."""

    def parse(data):
        context, steps = tf.io.parse_single_sequence_example(
            data,
            {"clip/label/index": tf.io.VarLenFeature(tf.int64)},
            {
                "image/encoded": tf.io.FixedLenSequenceFeature((), tf.string),
                "melspec/feature/floats": tf.io.FixedLenSequenceFeature((100, 128), tf.float32),
            },
        )
        jpegs, mel = steps["image/encoded"], steps["melspec/feature/floats"]
        mel = tf.reshape(mel, (-1, 128))
        count, total = tf.shape(jpegs)[0], tf.shape(mel)[0]
        room = tf.maximum(count - (frames - 1) * stride, 1)
        first = tf.random.uniform((), 0, room, tf.int32)
        sampled = tf.gather(jpegs, (first + stride * tf.range(frames)) % count)
        rgb = tf.map_fn(
            lambda jpeg: tf.image.decode_jpeg(jpeg, channels=3),
            sampled,
            fn_output_signature=tf.uint8,
        )
        begin = tf.cast(tf.round(first / count * tf.cast(total, tf.float64)), tf.int32)
        label = tf.sparse.to_dense(context["clip/label/index"])
        return {
            "rgb": tf.image.pad_to_bounding_box(rgb, 0, 0, height, width),
            "spec": tf.gather(mel, (begin + tf.range(rows)) % total),
            "labels": tf.reduce_max(tf.one_hot(label, classes), 0),
        }

    options = tf.data.Options()
    options.threading.private_threadpool_size = 1
    options.threading.max_intra_op_parallelism = 1
    pipeline = tf.data.TFRecordDataset(paths).repeat().map(parse).batch(batch)
    return pipeline.with_options(options).as_numpy_iterator()


def main(clips: int, batch: int, *shape_and_paths: str) -> None:
    tf = importlib.import_module("tensorflow")
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    pipeline = batches(tf, shape_and_paths[6:], batch, *map(int, shape_and_paths[:6]))
    for _ in range(-(-WARM // batch)):
        next(pipeline)
    start = time.process_time()
    for _ in range(clips // batch):
        next(pipeline)
    print(time.process_time() - start)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
