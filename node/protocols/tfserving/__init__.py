"""TensorFlow Serving's REST interface, as its own documentation and clients have it."""
