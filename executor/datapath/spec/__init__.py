"""The only parser: text and plain data in, frozen desired state or every violation out."""
