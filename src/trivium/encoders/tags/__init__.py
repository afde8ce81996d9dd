"""What media files say of themselves: EXIF, IPTC, XMP, tags of sounds and containers, under our names.

May import: `encoders.decoding`, `encoders.files` and `encoders.base`.
"""
