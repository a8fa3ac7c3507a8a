"""Films of camera frames: H.264 in MP4, with PyAV."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np

from lam_ros.errors import EpisodeError

CODEC, PIXEL_FORMAT = "h264", "yuv420p"
QUALITY, KEY_FRAME_EVERY = 18, 2  # crf; any frame is reached by decoding two


def write_video(path: Path, frames: Sequence[np.ndarray], fps: int) -> None:
    """Encode uint8 (H, W, 3) RGB frames; H and W even, as 4:2:0 needs.

    Raises:
        EpisodeError: the disk does not take it, or the size is odd.
    """
    import av

    height, width = frames[0].shape[:2]
    if height % 2 or width % 2:
        raise EpisodeError(f"frames of {width}x{height} cannot be encoded; give an even --size.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with av.open(str(path), "w") as container:
            options = {"crf": str(QUALITY), "g": str(KEY_FRAME_EVERY)}
            stream = container.add_stream("libx264", rate=fps, options=options)
            stream.width, stream.height, stream.pix_fmt = width, height, PIXEL_FORMAT
            stream.time_base = Fraction(1, fps)
            for number, frame in enumerate(frames):
                picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
                picture.pts, picture.time_base = number, Fraction(1, fps)
                container.mux(stream.encode(picture))
            container.mux(stream.encode())
    except (OSError, av.FFmpegError) as error:
        raise EpisodeError(f"{path} cannot be written: {error}.") from None


def read_video(path: Path, start_s: float, count: int, fps: float, size: tuple[int, int]) -> Iterator[np.ndarray]:
    """The ``count`` frames from ``start_s`` on, uint8 (H, W, 3) RGB.

    Raises:
        EpisodeError: it is no film, is not of that size (width, height), or has too few frames.
    """
    import av

    found = 0
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            if (stream.width, stream.height) != size:
                raise EpisodeError(
                    f"{path} is {stream.width}x{stream.height}; the robot YAML says {size[0]}x{size[1]}. "
                    "Set the camera's width and height in it."
                )
            container.seek(int(max(0.0, start_s - 1.0 / fps) / stream.time_base), stream=stream)
            for frame in container.decode(stream):
                if frame.time is None or frame.time < start_s - 0.5 / fps:
                    continue
                if found == count:
                    return
                found += 1
                yield frame.to_ndarray(format="rgb24")
    except (OSError, IndexError, ValueError, av.FFmpegError) as error:
        raise EpisodeError(f"{path} cannot be read as a film: {error!r}.") from None
    if found < count:
        raise EpisodeError(f"{path} has {found} frames from {start_s:.2f} s on, where {count} were expected.")
