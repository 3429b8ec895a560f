"""Make events from video: a simulated DVS pixel array, and the eye movements that turn a picture into a video."""

import itertools

import numpy as np
import numpy.typing as npt

from jellyfit.errors import InputError, InputTypeError
from jellyfit.events.array import EventArray, check_sensor_size, make_events
from jellyfit.events.parameters import Parameterized

__all__ = ["DVSSimulator", "three_saccades"]

_ROUNDING = 1e-9  # in thresholds: a level missed by less was reached
_SMALLEST_THRESHOLD = 0.01  # where mismatch would make a pixel fire without end
_THRESHOLDS, _NOISE = 0, 1  # random streams of their own, so that one does not shift the other


class DVSSimulator(Parameterized):
    """The pixel array of a dynamic vision sensor.

    Each pixel remembers a level of log intensity, log(I + eps), at first that of the first video frame. Whenever the
    log intensity has risen by ``threshold_on`` above the level, or fallen by ``threshold_off`` below it, the pixel
    sends an ON or OFF event and the level moves by that threshold (Lichtsteiner, Posch and Delbruck, 2008). Between
    two video frames the log intensity is a straight line in time, so that one interval may hold many events, each at
    its own time (ESIM: Rebecq, Gehrig and Scaramuzza, 2018). Threshold mismatch, leak and background noise follow
    v2e (Hu, Liu and Delbruck, 2021). Times are rounded to whole µs.

    The same parameters and input give the same events, whatever was simulated before.

    Args:
        threshold_on: Rise in log intensity for an ON event, above 0. Default 0.2, i.e. 22 % brighter.
        threshold_off: Fall in log intensity for an OFF event, above 0. Default 0.2.
        threshold_std: Standard deviation of both thresholds between pixels, a fixed pattern of the camera; thresholds
            stay above 0.01. Default 0: all pixels alike.
        refractory: Time in µs after an event in which the pixel sends no other; crossings in it move the level and
            are lost (as in ESIM). Default 0.
        leak_rate: ON events per pixel and second that a DVS pixel sends in the dark, as its level leaks. Default 0.
        noise_rate: Background events per pixel and second: Poisson, either polarity, no effect on the level nor by
            the refractory period. Default 0.
        eps: What is added to the intensity, in its unit, as a floor for the logarithm: it sets the contrast between
            black and white. Default 0.1, for video from 0 to 1.
        seed: Seed of mismatch and noise. Default 0.

    Raises:
        InputError: A parameter is not finite or out of range.
        InputTypeError: A parameter is not a number.

    Examples:
        >>> import numpy as np
        >>> from jellyfit.events import DVSSimulator
        >>> video = np.array([0.1, 0.2, 0.1]).reshape(3, 1, 1)  # one pixel becomes brighter, then darker
        >>> events = DVSSimulator().simulate(video, times=[0, 1000, 2000])
        >>> events["p"].tolist()
        [True, True, False, False]
    """

    def __init__(
        self,
        threshold_on: float = 0.2,
        threshold_off: float = 0.2,
        *,
        threshold_std: float = 0.0,
        refractory: int = 0,
        leak_rate: float = 0.0,
        noise_rate: float = 0.0,
        eps: float = 0.1,
        seed: int = 0,
    ) -> None:
        self.threshold_on = _number("threshold_on", threshold_on, above_zero=True)
        self.threshold_off = _number("threshold_off", threshold_off, above_zero=True)
        self.threshold_std = _number("threshold_std", threshold_std)
        self.refractory = _integer("refractory", refractory)
        self.leak_rate = _number("leak_rate", leak_rate)
        self.noise_rate = _number("noise_rate", noise_rate)
        self.eps = _number("eps", eps, above_zero=True)
        self.seed = _integer("seed", seed)

    def simulate(self, video: npt.ArrayLike, times: npt.ArrayLike, *, sample: int = 0) -> EventArray:
        """Simulate the events of one video.

        Args:
            video: Intensities ``[K, H, W]``, at least 0, K at least 2. Linear light, best from 0 to 1 (see ``eps``).
            times: Times ``[K]`` of the video frames in µs, ascending integers.
            sample: Number of the video in its data set: each has its own noise; the camera stays the same.

        Returns:
            Events ``[N]`` of :data:`~jellyfit.events.EVENT_DTYPE`, sorted by time; at one time by row and column.

        Raises:
            InputError: A shape does not fit, an intensity is negative, NaN or infinite, or the times do not ascend.
            InputTypeError: The video is not of numbers, or the times not of integers.
        """
        frames, clock = _check_video(video, times)
        _, height, width = frames.shape
        levels = np.log(frames.reshape(len(frames), -1) + self.eps)
        on, off = self._thresholds(height, width)
        if self.leak_rate:
            levels += self.leak_rate * on * ((clock - clock[0]) * 1e-6)[:, None]
        pixel, t, p = _crossings(levels, clock, on, off)
        if self.refractory:
            kept = _outside_refractory(pixel, t, self.refractory)
            pixel, t, p = pixel[kept], t[kept], p[kept]
        if self.noise_rate:
            noise = self._noise(height * width, clock, _integer("sample", sample))
            pixel, t, p = (np.concatenate(pair) for pair in zip((pixel, t, p), noise, strict=True))
        order = np.lexsort((pixel, t))
        y, x = np.divmod(pixel[order], width)
        return make_events(t[order], x, y, p[order])

    def _thresholds(self, height: int, width: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        random = np.random.default_rng([self.seed, _THRESHOLDS])
        means = np.array([[self.threshold_on], [self.threshold_off]])
        spread = random.standard_normal((2, height * width)) * self.threshold_std
        on, off = np.maximum(means + spread, np.minimum(means, _SMALLEST_THRESHOLD))
        return on, off

    def _noise(
        self, pixels: int, clock: npt.NDArray[np.int64], sample: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
        random = np.random.default_rng([self.seed, _NOISE, sample])
        N = int(random.poisson(self.noise_rate * pixels * (clock[-1] - clock[0]) * 1e-6))
        times = random.integers(clock[0], clock[-1], N, endpoint=True)
        return random.integers(pixels, size=N), times, random.integers(2, size=N).astype(np.bool_)


def three_saccades(
    image: npt.ArrayLike,
    size: tuple[int, int] = (34, 34),
    *,
    zoom: float = 3.0,
    amplitude: float = 4.0,
    duration: int = 300_000,
    steps: int = 16,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Move a picture before a camera along three saccades, the three sides of an isosceles triangle.

    As N-MNIST was recorded (Orchard, Jayawant, Cohen and Thakor, 2015): down to the right, up to the right, and back
    to the left. Each saccade starts and ends at rest (its way is half a cosine wave). The picture is magnified and
    shifted by fractions of a pixel, bilinearly, in one step; around it is black.

        video, times = three_saccades(digit / 16)  # an 8 x 8 digit of scikit-learn, values 0 to 16
        events = DVSSimulator().simulate(video, times)

    Args:
        image: Intensities ``[h, w]``, at least 0, best from 0 to 1.
        size: (height, width) of the camera in pixels. Default (34, 34), that of N-MNIST.
        zoom: Camera pixels per pixel of the picture. Default 3.0: 24 x 24 for an 8 x 8 picture.
        amplitude: Base and height of the triangle in camera pixels. Default 4.0.
        duration: Time of the three saccades together in µs. Default 300,000.
        steps: Video frames per saccade. Default 16.

    Returns:
        The video ``[K, H, W]`` with K = 3 * steps + 1, whose last frame is its first, and the times ``[K]`` of its
        frames in µs, from 0 to ``duration``.

    Raises:
        InputError: A shape or parameter does not fit, an intensity is negative, NaN or infinite, or the picture
            leaves the camera.
        InputTypeError: The picture or a parameter is not a number.

    Examples:
        >>> import numpy as np
        >>> from jellyfit.events import three_saccades
        >>> video, times = three_saccades(np.ones((8, 8)), steps=4)
        >>> video.shape, times[[0, -1]].tolist()
        ((13, 34, 34), [0, 300000])
    """
    picture = _intensities("image", image, 2, "[h, w]")
    height, width = check_sensor_size(size)
    zoom, amplitude = _number("zoom", zoom, above_zero=True), _number("amplitude", amplitude)
    if _integer("steps", steps) < 1 or _integer("duration", duration) < 3 * steps:
        raise InputError(
            f"steps must be at least 1 and duration at least 1 µs for each of the 3 * steps frames; got steps={steps} "
            f"and duration={duration}. The defaults are steps=16 and duration=300000."
        )
    needed = [zoom * side + amplitude for side in picture.shape]
    if needed[0] > height or needed[1] > width:
        raise InputError(
            f"A picture of {picture.shape[0]} x {picture.shape[1]} pixels at zoom={zoom:g}, moved by "
            f"amplitude={amplitude:g}, needs {needed[0]:g} x {needed[1]:g} camera pixels; size is {height} x {width}. "
            "Give a smaller zoom or amplitude, or a larger size."
        )
    way = (1 - np.cos(np.pi * np.arange(steps) / steps)) / 2
    corners = amplitude * np.array([[-0.5, -0.5], [0.5, 0.0], [-0.5, 0.5], [-0.5, -0.5]])  # (down, right)
    path = np.concatenate([a + way[:, None] * (b - a) for a, b in itertools.pairwise(corners)])
    path = np.concatenate([path, corners[-1:]])
    rows = _bilinear(height, picture.shape[0], path[:, 0], zoom)
    columns = _bilinear(width, picture.shape[1], path[:, 1], zoom)
    video = rows @ picture @ columns.transpose(0, 2, 1)
    return video, np.rint(np.linspace(0, duration, len(path))).astype(np.int64)


def _bilinear(pixels: int, side: int, shifts: npt.NDArray[np.float64], zoom: float) -> npt.NDArray[np.float64]:
    """Weights [K, pixels, side] that magnify one axis about its centre and shift it by each of K shifts."""
    centres = np.arange(pixels) - (pixels - 1) / 2 - shifts[:, None]
    position = centres / zoom + (side - 1) / 2
    weights: npt.NDArray[np.float64] = np.maximum(1 - np.abs(position[:, :, None] - np.arange(side)), 0)
    return weights


def _crossings(
    levels: npt.NDArray[np.float64],
    clock: npt.NDArray[np.int64],
    on: npt.NDArray[np.float64],
    off: npt.NDArray[np.float64],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Pixel, time and polarity of every crossing; of one pixel in the order of time."""
    references = np.empty((len(levels) - 1, levels.shape[1]))
    steps = np.empty_like(references)  # thresholds crossed in each interval, OFF ones negative
    reference = levels[0].copy()
    for k, level in enumerate(levels[1:]):
        references[k] = reference
        change = level - reference
        threshold = np.where(change > 0, on, off)
        steps[k] = np.trunc(change / threshold + np.copysign(_ROUNDING, change))
        reference += steps[k] * threshold
    interval, pixel = np.nonzero(steps)
    step = steps[interval, pixel]
    threshold = np.where(step > 0, on[pixel], off[pixel]) * np.sign(step)
    count = np.abs(step).astype(np.int64)
    event = np.repeat(np.arange(len(count)), count)
    nth = np.arange(len(event)) - np.repeat(np.cumsum(count) - count, count) + 1
    interval, pixel = interval[event], pixel[event]
    start, change = levels[interval, pixel], levels[interval + 1, pixel] - levels[interval, pixel]
    level = references[interval, pixel] + nth * threshold[event]
    fraction = np.divide(level - start, change, out=np.ones_like(level), where=change != 0)
    begin, end = clock[interval], clock[interval + 1]
    t = begin + np.rint(np.clip(fraction, 0, 1) * (end - begin)).astype(np.int64)
    return pixel, t, step[event] > 0


def _outside_refractory(
    pixel: npt.NDArray[np.int64], t: npt.NDArray[np.int64], refractory: int
) -> npt.NDArray[np.int64]:
    """Indices of the events that are sent: the first of each pixel, then each first one after the period is over."""
    if not len(t):
        return np.zeros(0, np.int64)
    order = np.lexsort((t, pixel))
    since = t[order] - t.min()
    line = pixel[order] * (since.max() + 1) + since  # one time line, on which the pixels do not overlap
    following = np.searchsorted(line, line + refractory)
    last = np.append(np.flatnonzero(np.diff(pixel[order])), len(order) - 1)
    ends = np.repeat(last + 1, np.diff(last, prepend=-1))  # for each event, where its pixel's events end
    sent = np.zeros(len(order), np.bool_)
    now = np.append(0, last[:-1] + 1)
    while len(now):
        sent[now] = True
        now = following[now][following[now] < ends[now]]
    return np.sort(order[sent])


def _check_video(video: npt.ArrayLike, times: npt.ArrayLike) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    frames = _intensities("video", video, 3, "[K, H, W]")
    check_sensor_size(frames.shape[1:])
    clock = np.asarray(times)
    if clock.shape != frames.shape[:1] or len(clock) < 2:
        raise InputError(
            f"times must hold one time for each video frame, and at least two; got times of shape {list(clock.shape)} "
            f"for a video of shape {list(frames.shape)}."
        )
    if clock.dtype.kind not in "iu":
        raise InputTypeError(
            f"times must be integers in µs; got {clock.dtype}. From seconds: np.rint(seconds * 1e6).astype(np.int64)."
        )
    clock = clock.astype(np.int64)
    backward = np.diff(clock) <= 0
    if backward.any():
        first = int(backward.argmax())
        raise InputError(
            f"The times of video frames must ascend; frame {first + 1} at {clock[first + 1]} µs follows frame {first} "
            f"at {clock[first]} µs ({np.count_nonzero(backward)} such places). Sort the frames, or leave out copies."
        )
    return frames, clock


def _intensities(name: str, values: npt.ArrayLike, ndim: int, shape: str) -> npt.NDArray[np.float64]:
    array = np.asarray(values)
    if array.dtype.kind not in "biuf":
        raise InputTypeError(f"{name} must be an array of numbers {shape}; got {array.dtype}.")
    if array.ndim != ndim or not array.size:
        raise InputError(f"{name} must have the shape {shape}, none of them 0; got {list(array.shape)}.")
    array = array.astype(np.float64)
    wrong = ~(np.isfinite(array) & (array >= 0))
    if wrong.any():
        where = tuple(int(index[0]) for index in np.nonzero(wrong))
        raise InputError(
            f"{name} must hold intensities, finite and at least 0; {np.count_nonzero(wrong)} of {array.size} values "
            f"are not, the first is {array[where]} at {list(where)}. Undo a normalisation to mean 0 first."
        )
    return array


def _number(name: str, value: float, *, above_zero: bool = False) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise InputTypeError(f"{name} must be a number; got {value!r}.")
    if not np.isfinite(value) or value < 0 or (above_zero and value == 0):
        raise InputError(f"{name} must be finite and {'above' if above_zero else 'at least'} 0; got {value}.")
    return float(value)


def _integer(name: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise InputTypeError(f"{name} must be an integer; got {value!r}.")
    if value < 0:
        raise InputError(f"{name} must be at least 0; got {value}.")
    return int(value)
