"""Packing: what N backbones know, in one student. A library; strategies wire it.

    teachers.py     Teacher; train_teacher (calibration, whole fine-tuning, best-validation or last epoch); prototypes_of
    data.py         PackData: labelled examples, unlabelled inputs, inputs of consenting donors
    packer.py       pack(student, teachers, data, settings, how): trains the student in place, returns the log of its epochs
    plan.py         what is settled and refused before the first step
    lessons.py      the terms between the student and one teacher
    needs.py        what a loss declares, and why it is refused; losses/table.py has all of them
    weights.py      of teachers
    labels.py       classes in common, or none
    projectors.py   for students of another width or number of latents
    merge.py        average, task arithmetic, TIES, Fisher, block union
    ensemble.py     the reference of all models together

A typical use, for one target:

    teachers = [Teacher(name, train_teacher(model, task, budget), classes, similarity) for each donor's model on the target]
    student = copy_model(the best donor's model with a head for the classes)
    packed = pack(student, teachers, PackData(task, classes, unlabelled), config.packing, how, seed=seed, record=record)
    control = pack(another, [Teacher("self", a trained copy of it, classes)], ...)          self-distillation
    scratch = pack(a third, [], ...)                                                        the same steps without teachers
"""
