"""The demo: `python app.py [--model NAME|PATH]`, then open http://127.0.0.1:7860.

It is the same as `mbt-lite demo`. `gradio app.py` shows changes of the code at once, and takes the
options after two dashes: `gradio app.py -- --model NAME`. Programs ask
`gradio_client.Client(url).predict(handle_file(path), api_name="/predict")`.
"""

import sys

from mbt_lite.cli.demo import page

demo = page(sys.argv[1:] if __name__ == "__main__" else ())

if __name__ == "__main__":
    from mbt_lite.demo.page import exit_on_sigterm

    exit_on_sigterm()
    demo.launch()
