"""What we measure, beside the peers. Each benchmark is a module with `run(work)`; `./run bench` lists them."""
