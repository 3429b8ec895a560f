"""Pictures of a spiking network and of its training: NumPy arrays in, matplotlib figures out.

Nothing here needs a display, touches pyplot or leaves a global setting changed, so the functions can be called from a
training loop on a server. matplotlib is imported by the first call, not by the import of this package. Show a figure by
`save` (a PNG file) or `to_array` (for TensorBoard and other loggers).

The colours are those of Okabe and Ito (2008), which people with a colour vision deficiency can tell apart; event frames
alone are green and red, as the event camera field draws them.
"""

from jellyfit.pictures.animation import save_film, save_gif
from jellyfit.pictures.confusion import confusion_matrix
from jellyfit.pictures.curves import learning_curves
from jellyfit.pictures.files import save, to_array
from jellyfit.pictures.frames import event_frame_image, event_frames
from jellyfit.pictures.means import mean_curves
from jellyfit.pictures.rates import firing_rates
from jellyfit.pictures.spikes import spike_raster

__all__ = [
    "confusion_matrix",
    "event_frame_image",
    "event_frames",
    "firing_rates",
    "learning_curves",
    "mean_curves",
    "save",
    "save_film",
    "save_gif",
    "spike_raster",
    "to_array",
]
