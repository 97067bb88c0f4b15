"""Values for variables, and what terms are on them: the untrusted, fast half of evaluation."""
