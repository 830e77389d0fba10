"""What an embedding request is: types, spaces, errors, money, and shared work. No I/O."""
