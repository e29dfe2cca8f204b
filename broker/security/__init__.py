"""Who is it, and may they: authentication and what it rests on."""
