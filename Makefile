# make demo: set up and write text with the model in the repository.
# make test: set up and run every test.
.PHONY: demo test test-large driver

CARGO ?= cargo

demo: driver
	$(CARGO) run --release --quiet -- generate --max-tokens 200

test: driver
	$(CARGO) test --release

# Some Vulkan driver: a real one where there is one, else Mesa's software adapter.
driver:
	@sh tools/driver.sh
