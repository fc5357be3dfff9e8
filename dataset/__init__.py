"""The store of chunked contexts, the batch plan and the data set made of both."""
