"""What is needed to work on machines of a cloud; `files` holds what goes there beside the wheel."""
