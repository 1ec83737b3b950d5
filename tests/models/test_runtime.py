"""How TensorFlow is imported."""

from __future__ import annotations

import subprocess
import sys


def test_tensorflow_is_imported_without_keras_which_can_be_imported_later() -> None:
    program = (
        "import sys\n"
        "from cxr_embed.models.tensorflow.runtime import import_tensorflow\n"
        "tensorflow = import_tensorflow()\n"
        "assert 'keras' not in sys.modules\n"
        "import keras\n"
        "assert keras.backend.backend() == 'tensorflow'\n"
        "assert tensorflow.keras.layers.Dense is keras.layers.Dense\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
