saga.fill(element);
