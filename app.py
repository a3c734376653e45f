"""The demo: `python app.py [--model NAME|PATH]`, then open http://127.0.0.1:7860.

`gradio app.py` shows changes of the code at once; `python app.py --help` says the rest. Programs
ask `gradio_client.Client(url).predict(handle_file(path), api_name="/predict")`.
"""

import sys

from mbt_lite.demo import end_tidily, start

demo = start(sys.argv[1:] if __name__ == "__main__" else ())

if __name__ == "__main__":
    end_tidily()
    demo.launch()
