"""The operations that a backend can be judged by: what each returns, and which outputs its stages allow."""
