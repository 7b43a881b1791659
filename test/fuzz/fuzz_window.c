/*
 * fuzz_window.c
 *	  libFuzzer target for src/core/window.c: the input is the columns of a
 *	  window, then a sequence of operations on it and on a naive model
 *	  (../unit/window_model.h), which are compared now and then.
 */
#include "../unit/window_model.h"

#define MAX_STEPS 200

int			LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	Source		source = {data, size, 0};
	RaWindowSpec spec;
	Model		model;
	uint64_t	bits;

	if (size < 4)
		return 0;
	bits = draw(&source);
	draw_spec(&source, &spec);
	model_init(&model, &spec, draw_below(&source, 100), draw_below(&source, 50));
	model.max_count = 150;
	model.nvalues = bits & 1 ? 5 : 200;
	model.huge = (bits >> 1) & 1;
	model.edge = (bits >> 3) & 1;

	/* some inputs begin with a window that has blocks */
	if (bits & 4)
	{
		Source		seeded = {NULL, 0, bits};

		for (int step = 0; step < 120; step++)
			model_step(&model, &seeded);
		model_check(&model, &seeded);
	}
	for (int step = 0; step < MAX_STEPS && source.len > 0; step++)
	{
		model_step(&model, &source);
		if (step % 16 == 15)
			model_check(&model, &source);
	}
	model_check(&model, &source);
	model_free(&model);
	return 0;
}
