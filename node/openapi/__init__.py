"""What a node answers to, as an OpenAPI document: built from the types the code uses, served at ``/openapi.json``."""
