"""Motion by RAFT's optical flow: the same quantities as `flow` finds with DIS, better at large and occluded motion, and
a hundred times as slow on a CPU.
"""

from __future__ import annotations

import numpy as np
import torch
from torch.nn.functional import interpolate

from fifo_diffusion.evaluate import flow
from fifo_diffusion.evaluate.flow import Flow, FlowMeter, quantities
from fifo_diffusion.evaluate.metric import Meter, Metric, Video
from fifo_diffusion.evaluate.networks import obtain, raft
from fifo_diffusion.names import Frame


class RaftMotion(Metric):
    name = "raft"
    needs = "RAFT and the package opencv-python-headless (fifo evaluate fetch raft)"
    quantities = quantities("RAFT")
    usual = False

    def missing(self) -> str | None:
        return flow.METRICS[0].missing() or obtain.missing("raft")

    def begin(self, video: Video) -> Meter:
        net = obtain.network("raft", video.device)
        assert isinstance(net, raft.RAFT)
        return FlowMeter("RAFT", lambda before, frame: estimate(net, video.device, before, frame))


@torch.inference_mode()
def estimate(net: raft.RAFT, device: str, before: Frame, frame: Frame) -> Flow:
    """Where each pixel of the later frame was in the earlier one, from it, in pixels."""
    height, width = frame.shape[:2]
    both = torch.from_numpy(np.stack([frame, before])).permute(0, 3, 1, 2).to(device)
    later, earlier = raft.seen(both).chunk(2)
    found = net(later, earlier)
    size = found.shape[2:]
    back = interpolate(found, (height, width), mode="bilinear", antialias=True, align_corners=False)[0]
    back *= back.new_tensor([width / size[1], height / size[0]]).view(2, 1, 1)
    out: Flow = back.permute(1, 2, 0).contiguous().cpu().numpy()
    return out


METRICS = (RaftMotion(),)
