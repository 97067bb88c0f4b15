"""What every test stands on."""

from __future__ import annotations

import torch

# On shared cores a second thread spends its time waiting; tests about threads ask for them.
torch.set_num_threads(1)
