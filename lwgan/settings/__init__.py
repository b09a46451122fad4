"""Settings: what there is to choose, what is allowed, and how it is written to a run.

One nested ``ConfigDict`` holds them. Begin with ``defaults``, where each setting is said once: its
value, what it means, what it may be by one of the ``rules``. ``checks`` refuses others, ``files``
keeps them in a run. This room knows neither networks nor images: what a table of another room
offers (losses, augmentations, …) is passed in.
"""
