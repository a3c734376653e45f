"""The playground in a browser without a network: it answers as JAX does, a person bends it."""

import threading
from pathlib import Path

import jax
import numpy as np
import pytest

from mbt_lite import features, inference, playground
from mbt_lite.cli import main
from mbt_lite.data import world
from mbt_lite.explain import interventions
from mbt_lite.model.mbt import MBT
from mbt_lite.model.observe import attention_rows

CHROMIUM = Path("/usr/bin/chromium")
pytestmark = pytest.mark.full
FLAGS = ["--no-sandbox", "--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"]
CUTS = ["zero 1 1", "read 2 spec 2", "write 1 rgb 3", "zero 2 0"]
COMPUTE = """async ({ name, inputs, cuts }) => {
  const { MBT, Edits } = await import("./mbt.js");
  const { logMel } = await import("./frontend.js");
  const file = await fetch(`models/${name}.safetensors`);
  const model = new MBT(await file.arrayBuffer());
  const trace = [], tokens = {};
  const answered = (names) => model.answer(tokens, new Edits(names)).logits;
  const { streams } = model.config;
  for (const s of streams) tokens[s] = model.prefix(s, Float32Array.from(inputs[s]));
  const answer = model.answer(tokens, new Edits(), trace);
  const rows = trace.flatMap(({ weights, length, bottlenecks }) => // what the bottleneck reads
    [...weights].filter((_, i) => {
      const query = Math.floor(i / length) % length, key = i % length;
      const tokens = length - bottlenecks;
      return query >= tokens && key > 0 && key < tokens;
    }));
  const numbers = {
    ...answer.streamLogits, logits: answer.logits, features: answer.features, attention: rows,
    "log-mel": logMel(Float32Array.from(inputs.wave), model.clip.front_end),
    "tokens and edges cut": answered(cuts), "first token silent": answered(["zero 0 2"]),
  };
  return Object.fromEntries(Object.entries(numbers).map(([what, x]) => [what, [...x]]));
}"""
SCORE = """async (count) => {
  const { MBT } = await import("./mbt.js"), world = await import("./world.js");
  const { logMel, normalizeFrames, normalizeMel } = await import("./frontend.js");
  const file = await fetch("models/world-tiny.safetensors");
  const model = new MBT(await file.arrayBuffer());
  const front = model.clip.front_end, scores = { matched: [], labels: [] };
  for (let i = 0; i < count; i++) {
    const scene = world.scene(i), truth = world.names(scene);
    const { logits } = model.answer({
      rgb: model.prefix("rgb", normalizeFrames(world.frames(scene, model.clip))),
      spec: model.prefix("spec", normalizeMel(logMel(world.waveform(scene), front), front)),
    });
    const sings = [...logits.slice(27)], first = model.labels.indexOf("circle sings");
    const best = model.labels[first + sings.indexOf(Math.max(...sings))];
    if (scene.singer !== null) scores.matched.push(best === truth.at(-1));
    model.labels.forEach((label, k) => scores.labels.push(truth.includes(label) === logits[k] > 0));
  }
  const mean = (x) => x.reduce((sum, right) => sum + right, 0) / x.length;
  return { matched: mean(scores.matched), labels: mean(scores.labels) };
}"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("playground")
    assert main(["playground", "--out", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def tab(folder):
    """A browser tab with the page; errors and requests to any other server fail the test."""
    sync_api = pytest.importorskip("playwright.sync_api")
    if not CHROMIUM.is_file():
        pytest.skip(f"needs {CHROMIUM} (Debian: apt-get install chromium)")
    server = playground.server(folder)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url, errors, requests = f"http://127.0.0.1:{server.server_port}/", [], []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        context = browser.new_context(permissions=["camera", "microphone"])
        context.set_default_timeout(120_000)  # ms, for a busy machine
        tab = context.new_page()
        tab.on("console", lambda message: errors.append(message.text))
        tab.on("pageerror", lambda error: errors.append(str(error)))
        context.on("request", lambda request: requests.append(request.url))
        tab.goto(url)
        tab.locator("body[data-answers]").wait_for()
        yield tab
        browser.close()
    server.shutdown()
    server.server_close()
    assert errors == []
    assert requests and all(url in each or each.startswith("data:") for each in requests)


def jax_numbers(classifier, clip) -> dict:
    """What `COMPUTE` computes, but the log-mel: by name."""
    config, params = classifier.config, classifier.params
    layers = interventions.fused_layers(config)
    run = jax.jit(interventions._apply_edits, static_argnums=0)
    plain, cuts = interventions.untouched(config), interventions.untouched(config)
    cuts.overwrite[0, 1] = cuts.overwrite[1, 0] = True  # CUTS
    cuts.no_read[1, 0, 2] = cuts.no_write[0, 1, 3] = True
    output = run(config, params, clip, plain)
    silent = {**params, "bottleneck": params["bottleneck"].at[0, 2].set(0)}
    _, rows = attention_rows(MBT(config), params, clip, "bottleneck", layers)
    blocks = [rows[s][0, i] for i in range(len(layers)) for s in config.streams]  # [H, Z, N]
    return {
        **output.stream_logits,
        "logits": output.logits,
        "features": output.features,
        "attention": np.concatenate([np.ravel(block) for block in blocks]),
        "tokens and edges cut": run(config, params, clip, cuts).logits,
        "first token silent": run(config, silent, clip, plain).logits,
    }


def test_answers_attention_and_cuts_are_those_of_jax(tab, folder, record_property):
    classifier = inference.load(folder / "models" / "world-tiny.safetensors")
    scene = world.scene(1, 20)
    sample, wave = world.sample(scene, classifier.clip_config), world.wave(scene)
    clip = features.normalize(sample["rgb"], sample["spec"], classifier.clip_config.front_end)
    expected = {"log-mel": sample["spec"], **jax_numbers(classifier, classifier._batch([clip]))}
    inputs = {"rgb": clip.rgb, "spec": clip.spec[..., 0], "wave": wave}
    inputs = {name: np.ravel(x).tolist() for name, x in inputs.items()}
    numbers = tab.evaluate(COMPUTE, {"name": "world-tiny", "inputs": inputs, "cuts": CUTS})
    assert numbers.keys() == expected.keys()
    for what, values in expected.items():
        error = np.abs(np.ravel(values) - numbers[what]).max()
        record_property(f"error {what}", f"{error:.1e}")
        assert error < 1e-4, what
    for what in ("tokens and edges cut", "first token silent"):
        assert np.abs(np.subtract(numbers[what], numbers["logits"])).max() > 0.01


@pytest.mark.slow
def test_clips_made_in_the_browser_are_answered_as_those_of_python(tab, record_property):
    scores = tab.evaluate(SCORE, 200)
    for name, score in scores.items():
        record_property(f"error {name}", f"{1 - score:.4f}")
    assert scores["matched"] > 0.999 - 0.03 and scores["labels"] > 0.99


def sing(tab) -> list[float]:
    """The shares of the bars, after an answer to the newest curve."""
    seen = "document.body.dataset.answers"
    before = None
    while before != (before := tab.evaluate(seen)):
        tab.wait_for_timeout(400)
    bars = tab.locator("#singer-bars b").evaluate_all(
        "all => all.map(bar => Number(bar.style.transform.slice(7, -1)))"
    )
    assert len(bars) == 4
    return bars


def test_a_pitch_bent_by_mouse_and_by_keyboard_changes_the_answer(tab):
    first = sing(tab)
    assert max(first) > 0.5 and "circle sings" in tab.locator("#verdict").inner_text()
    box = tab.locator("#pitch").bounding_box()
    x, y, w, h = (box[side] for side in ("x", "y", "width", "height"))
    tab.mouse.move(x + 2, y + 0.1 * h)  # down, as the cross
    tab.mouse.down()
    tab.mouse.move(x + w - 2, y + 0.9 * h, steps=25)
    tab.mouse.up()
    dragged = sing(tab)
    assert dragged.index(max(dragged)) == 2 and max(dragged) > 0.5
    assert "cross sings" in tab.locator("#verdict").inner_text()
    tab.locator("#pitch").focus()
    tab.keyboard.press("Home")
    for key in ["PageDown"] * 3 + ["End"] + ["PageUp"] * 3:
        tab.keyboard.press(key)
    assert max(sing(tab)) != pytest.approx(max(dragged), abs=0.05)
    assert "at 2.00 s" in tab.locator("#pitch").get_attribute("aria-valuetext")


def test_a_silenced_token_a_cut_band_and_an_opened_layer_show_the_models_numbers(tab):
    tab.get_by_role("tab", name="The way of an answer").click()
    tab.get_by_text("Nothing is cut yet").wait_for()
    token = tab.get_by_role("button", name="bottleneck token 3, after layer 1")
    token.press("Enter")
    tab.get_by_text("with 1 silenced").wait_for()
    tab.get_by_role("button", name="from the sound to token 1").first.press("Enter")
    tab.get_by_text("with 1 cut and 1 silenced").wait_for()
    tab.get_by_label("Bands show").select_option("cause")
    tab.get_by_text("Green: the way speaks for").wait_for()
    tab.get_by_role("button", name="Undo all cuts").click()
    tab.get_by_text("Nothing is cut yet").wait_for()
    tab.get_by_role("button", name="picture, layer 2").click()
    tab.get_by_role("heading", name="Inside: picture, layer 2").wait_for()
    rows = tab.locator("#numbers tr").evaluate_all("all => all.map(r => r.innerText.split('\\t'))")
    total = float(rows[-1][2])
    for _, score, power, share in rows[:-1]:
        assert float(power) == pytest.approx(np.exp(float(score.replace("−", "-"))), rel=0.01)
        assert float(share[:-2]) / 100 == pytest.approx(float(power) / total, abs=0.01)


def test_the_grid_answers_and_camera_and_microphone_are_answered(tab):
    tab.get_by_role("tab", name="Bottlenecks").click()
    tab.locator("#bottlenecks").get_by_role("button", name="New shapes").click()
    tab.get_by_text("answers are right about your clip").wait_for()
    assert tab.locator("#grid .says").count() == 9
    tab.get_by_role("tab", name="You", exact=True).click()
    tab.get_by_role("button", name="Start camera").click()
    tab.locator("body[data-live]").wait_for()
    assert tab.locator("#live-audio li").count() == 5
    tab.get_by_role("button", name="Cover the camera").click()
    tab.locator("#live-video").get_by_text("switched off").wait_for()
    tab.get_by_role("button", name="Stop camera").click()


def test_the_tour_notices_what_is_done_and_a_phone_shows_every_view(tab):
    tab.set_viewport_size({"width": 390, "height": 844})
    tab.get_by_role("button", name="Show me around").click()
    tour = tab.locator("#tour")
    tab.get_by_role("button", name="Play the sound").click()
    tour.get_by_text("Done").wait_for()
    for _ in range(6):
        tour.get_by_role("button", name="Next").or_(tour.get_by_role("button", name="Skip")).click()
        assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    assert "Step 7 of 7" in tour.inner_text()
    tour.get_by_role("button", name="Finish").click()
