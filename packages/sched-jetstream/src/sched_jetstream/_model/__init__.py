"""What is stored, and every decision about it. Pure: nothing here waits or connects."""
