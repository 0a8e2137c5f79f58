"""Work on machines of a cloud; `files` holds what goes there beside the wheel."""
