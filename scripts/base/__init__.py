"""The data of `trivium-base`: free pictures, sounds and words as tables that `trivium align` reads."""
