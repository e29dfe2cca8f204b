"""What a member of a cluster needs beside a broker that is alone."""
