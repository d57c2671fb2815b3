"""Image files taken apart before anything decodes them: sizes, what decoding will hold, and only the parts it needs."""
