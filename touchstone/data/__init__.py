"""What tests read: data sets that are downloaded and verified, and trained models that are cached."""
